"""What a model's answer says: thinking, calls of tools and content, told apart while it is written."""
