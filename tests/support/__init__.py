"""What several test folders share: real parts started and stopped, fixtures built from bytes."""
