"""Recipes for SimCLR. Each opens with its command, hardware, duration and expected accuracy on frozen features."""

from keras_barlow.recipes import barlow_twins_recipes as base

# python examples/pretrain.py --method=simclr
DIGITS = base.DIGITS.with_method("digits_simclr", "SimCLR", projector=(256, 128), loss_options={"temperature": 0.5})
