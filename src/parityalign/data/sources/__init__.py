"""Where unlabelled images come from: one file is one kind of source, called as the ending of such files."""
