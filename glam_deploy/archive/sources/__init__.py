"""Where the images of an archive are: folders, lists, object stores, zip and tar files, DICOMweb servers."""
