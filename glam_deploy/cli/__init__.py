"""The command line: one module a command. It wires the rooms below and is imported by none of them."""
