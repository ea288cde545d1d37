"""DICOM over the network: the listener (SCP), and the ways to send results out (C-STORE SCU, STOW-RS)."""
