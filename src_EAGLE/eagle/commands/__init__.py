"""The commands: their keys, and the calls of the library that they make. The scripts in src_EAGLE/ run them."""
