"""DICOM mammograms: reading under written acceptance rules, and writing valid objects.

Nothing outside this package imports pydicom.
"""
