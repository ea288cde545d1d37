"""Reception of instances: the DICOM listeners, and the ingest that C-STORE and STOW-RS share."""
