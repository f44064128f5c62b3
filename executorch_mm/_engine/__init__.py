"""Answers, from a prompt to the last piece of text: what every runner stands on."""
