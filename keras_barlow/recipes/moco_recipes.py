"""Recipes for MoCo v2. Each opens with its command, hardware, duration and expected accuracy on frozen features."""

from keras_barlow.recipes import barlow_twins_recipes as base

# python examples/pretrain.py --method=moco
DIGITS = base.DIGITS.with_method(
    "digits_moco", "MoCo", projector=(256, 128), method_options={"momentum": 0.99, "queue_size": 1024}
)
