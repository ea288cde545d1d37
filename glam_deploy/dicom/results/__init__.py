"""What was found, as DICOM objects of the patient's own study: segmentation, picture, structured reports, and more.

Each writer is a function from the records of `records` to a data set; `objects.save` writes it. The same arguments give
the same bytes. Nothing outside this package imports highdicom. docs/results.md describes the objects to their readers.
"""
