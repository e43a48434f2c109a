"""The page: search and look after folders of pictures in a browser."""
