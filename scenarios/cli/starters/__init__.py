"""What `fedzo new` copies: whole examples, in which the word Starter becomes the user's name."""
