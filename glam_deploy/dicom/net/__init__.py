"""DICOM networking: the listener (SCP), and delivery of results by C-STORE (SCU) or STOW-RS."""
