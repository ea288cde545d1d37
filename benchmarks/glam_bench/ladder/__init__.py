"""The ladder of `glam-deploy bench`: ways to run the same weights, and their speeds and results side by side."""
