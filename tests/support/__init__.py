"""What several tests share: stand-ins, inputs, and programs that tests start."""
