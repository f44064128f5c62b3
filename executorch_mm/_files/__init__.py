"""What the files published with a model say, each kind read in one place."""
