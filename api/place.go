package api

import "strconv"

// Place formats a place in a file as editors do: `deploy/web.yaml:3:7`. A line or column of 0 is left out.
func Place(file string, line, column int32) string {
	for _, n := range []int32{line, column} {
		if n == 0 {
			break
		}
		file += ":" + strconv.Itoa(int(n))
	}
	return file
}
