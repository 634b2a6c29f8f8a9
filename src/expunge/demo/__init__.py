"""The demo that ships with expunge: eight invented people, and a small model that was taught about them."""
