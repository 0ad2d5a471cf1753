"""What picking gaps is worth: the cells of the study, how each is trained, and the page that its records make."""
