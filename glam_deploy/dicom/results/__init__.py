"""Findings as DICOM objects in the study of the mammogram: SEG, structured reports, Secondary Capture, GSPS.

Each writer is a function from the records of `records` to a data set; `objects.save` writes it. The same arguments give
the same bytes. Nothing outside this package imports highdicom. docs/results.md describes the objects.
"""

THRESHOLD = 0.5
"""Saliency above which a pixel belongs to a region, unless the caller states another one."""
