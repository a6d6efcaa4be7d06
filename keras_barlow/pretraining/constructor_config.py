"""A model's config, read from its constructor: every argument is an attribute of the same name."""

import inspect

import keras


class ConstructorConfig:
    """Mixin for a `keras.Model` whose constructor arguments are attributes. It makes `get_config` unnecessary."""

    def get_config(self):
        parameters = inspect.signature(type(self)).parameters.values()
        names = [parameter.name for parameter in parameters if parameter.kind is not parameter.VAR_KEYWORD]
        own = {name: keras.saving.serialize_keras_object(getattr(self, name)) for name in names}
        return {**super().get_config(), **own}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        return cls(
            **{
                name: keras.saving.deserialize_keras_object(value, custom_objects=custom_objects)
                if isinstance(value, dict) and name != "dtype"
                else value
                for name, value in config.items()
            }
        )
