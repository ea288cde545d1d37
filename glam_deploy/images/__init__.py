"""PNG, TIFF and npy files: their structure is checked before a decoder sees them."""
