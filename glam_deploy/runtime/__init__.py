"""Bundle and options -> pipeline -> result; knows stages and engines by contract, no vendor by name."""
