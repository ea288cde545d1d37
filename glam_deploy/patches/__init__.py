"""From global saliency to K patches, and from patch maps to one fused map. `host` is the truth for every engine."""
