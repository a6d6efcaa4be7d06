"""Recipes for VICReg. Each opens with its command, hardware, duration and expected accuracy on frozen features."""

from keras_barlow.recipes import barlow_twins_recipes as base

# python examples/pretrain.py --method=vicreg
DIGITS = base.DIGITS.with_method("digits_vicreg", "VICReg")
