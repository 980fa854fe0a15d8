package ipc

// BytesHeld tells how much of the byte budgets of all users is in use.
func (s *Server) BytesHeld() int {
	s.bytes.mu.Lock()
	defer s.bytes.mu.Unlock()
	n := 0
	for _, used := range s.bytes.used {
		n += used
	}
	return n
}
