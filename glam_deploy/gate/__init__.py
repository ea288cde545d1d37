"""Does a fast engine still find the lesion? Its answers against the reference's, and the verdict that binds it."""
