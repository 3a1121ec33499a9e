"""Any pictures: lists of them, their scores in files, the best of a group."""
