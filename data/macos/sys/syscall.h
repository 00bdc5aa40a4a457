/* That of macOS has numbers of system calls; mimalloc looks for one of Linux in it. */
