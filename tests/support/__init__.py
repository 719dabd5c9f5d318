"""What tests share: real servers, generators of lines, and ways to wait for a condition."""
