"""Where published files and blobs lie: a folder, or an object store that several servers share."""
