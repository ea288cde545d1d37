"""`state.db`, which records what has happened. Each module holds the state transitions of its own tables."""
