"""What a model file and this installation say about themselves, without running anything."""
