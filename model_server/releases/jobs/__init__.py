"""Staging as a job: an upload is answered once it is on disk, and checked, compared and proposed afterwards."""
