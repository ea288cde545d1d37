"""The receiver: DICOM listeners in a process of their own."""
