"""Upload of an encoder to Kaggle Models or the Hugging Face hub, through their official clients."""

import importlib
import re
import shutil
import tempfile

from keras_barlow.export.card import checked_fields
from keras_barlow.export.formats import save_encoder
from keras_barlow.export.writing import check_folder, local_path


def to_kaggle(model, handle, folder=None, dry_run=False, version_notes="", **export):
    """Publishes the SavedModel of an encoder as a new version of a model on Kaggle.

    Args:
        model: `BarlowTwins` model or encoder, as in `save_encoder`.
        handle: Model handle, `"owner/model/tensorFlow2/variation"`.
        folder: New or empty folder for the files to upload. None uses a temporary folder.
        dry_run: Whether to write the folder without uploading it.
        version_notes: Description of the changes in this version.
        **export: Further arguments of `save_encoder`; `card` may hold the license.

    Returns:
        The path of the folder.

    Raises:
        ImportError: If kagglehub is not installed and `dry_run` is False.
        ValueError: If the handle is malformed, or the folder is not empty.
    """
    if not re.fullmatch(r"[\w-]+/[\w-]+/tensorFlow2/[\w.-]+", handle):
        raise ValueError(f"`handle` must be 'owner/model/tensorFlow2/variation'. Received: handle={handle!r}.")
    kagglehub = _client("kagglehub", dry_run)
    export["card"] = checked_fields(export.get("card"))
    folder = _written(model, folder, export)
    if not dry_run:
        license = export["card"].get("license")
        kagglehub.model_upload(handle, folder, license_name=license, version_notes=version_notes)
    return folder


def to_huggingface(model, repo_id, folder=None, dry_run=False, private=False, **export):
    """Publishes the SavedModel of an encoder, with its model card, as a repository on the Hugging Face hub.

    Args:
        model: `BarlowTwins` model or encoder, as in `save_encoder`.
        repo_id: Repository, `"owner/name"`.
        folder: New or empty folder for the files to upload. None uses a temporary folder.
        dry_run: Whether to write the folder without uploading it.
        private: Whether a new repository is private.
        **export: Further arguments of `save_encoder`; `card` may hold the license.

    Returns:
        The path of the folder.

    Raises:
        ImportError: If huggingface_hub is not installed and `dry_run` is False.
        ValueError: If the repository name is malformed, or the folder is not empty.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo_id):
        raise ValueError(f"`repo_id` must be 'owner/name'. Received: repo_id={repo_id!r}.")
    huggingface_hub = _client("huggingface_hub", dry_run)
    folder = _written(model, folder, export)
    if not dry_run:
        huggingface_hub.create_repo(repo_id, private=private, exist_ok=True)
        huggingface_hub.upload_folder(repo_id=repo_id, folder_path=folder, commit_message="Encoder")
    return folder


def _client(name, dry_run):
    """Imports the client of a hub, before any work is done. A dry run needs none."""
    if dry_run:
        return None
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"Publishing needs {name}. Install it with pip install {name}.") from error


def _written(model, folder, export):
    """Writes the export to the folder, or to a temporary one that is deleted on failure."""
    if export.get("format", "saved_model") != "saved_model":
        raise ValueError(f"Only a SavedModel can be published. Received: format={export['format']!r}. Drop it.")
    if folder is not None:
        path = local_path(folder)
        check_folder(path)
        if path.exists() and any(path.iterdir()):
            raise ValueError(
                f"The folder must be empty, because its whole content is uploaded. Received: folder={str(folder)!r}. "
                "Pass a new folder, or None for a temporary one."
            )
        return save_encoder(model, path, **export)
    folder = tempfile.mkdtemp()
    try:
        return save_encoder(model, folder, **export)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
