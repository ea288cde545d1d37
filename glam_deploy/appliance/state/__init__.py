"""`state.db`: the one truth of what has happened. Each module holds the transitions of its own tables."""
