"""DICOM mammograms: reading them under written rules of acceptance, and writing valid ones.

Nothing outside this package imports pydicom.
"""
