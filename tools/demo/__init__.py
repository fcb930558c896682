"""The demo: the product's main job on real parts, told in the terminal."""
