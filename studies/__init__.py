"The studies of the forum post's claims: what is trained, and the command that trains it. See nbs/studies/PROTOCOL.md"
