"""What server and clients say to each other: questions, exchanges, and their wire form."""
