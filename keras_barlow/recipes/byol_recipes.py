"""Recipes for BYOL. Each opens with its command, hardware, duration and expected accuracy on frozen features."""

from keras_barlow.recipes import barlow_twins_recipes as base

# python examples/pretrain.py --method=byol
DIGITS = base.DIGITS.with_method(
    "digits_byol", "BYOL", projector=(256, 64), method_options={"predictor": (256, 64), "momentum": 0.98}
)
