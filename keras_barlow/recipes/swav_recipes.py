"""Recipes for SwAV. Each opens with its command, hardware, duration and expected accuracy on frozen features."""

from keras_barlow.recipes import barlow_twins_recipes as base

# python examples/pretrain.py --method=swav
DIGITS = base.DIGITS.with_method(
    "digits_swav", "SwAV", projector=(256, 64), method_options={"num_prototypes": 32, "frozen_steps": 27}
)
