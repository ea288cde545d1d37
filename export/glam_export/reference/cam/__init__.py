"""CAM in PyTorch (Zhou et al., CVPR 2016), on a ResNet with the state-dict keys that torchvision uses."""

from glam_export.reference.cam.network import CamNetwork

__all__ = ["CamNetwork"]
