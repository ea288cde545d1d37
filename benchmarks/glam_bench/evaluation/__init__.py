"""Evaluation of bundles on labelled images: areas under curves, Dice, FROC, calibration, and their page."""
