"""Recipes for SimSiam. Each opens with its command, hardware, duration and expected accuracy on frozen features."""

from keras_barlow.recipes import barlow_twins_recipes as base

# python examples/pretrain.py --method=simsiam
DIGITS = base.DIGITS.with_method(
    "digits_simsiam",
    "SimSiam",
    projector_options={"output_batch_norm": True},
    method_options={"predictor": (64, 256)},
)
