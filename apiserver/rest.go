package apiserver

import "net/http"

func (s *Server) rest() (http.Handler, error) { return http.NotFoundHandler(), nil }
