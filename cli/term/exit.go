package term

// Exit is an error with the exit code of caractrl. An empty message prints nothing.
type Exit struct {
	Code    int
	Message string
}

func (e Exit) Error() string { return e.Message }

// Exit codes of --wait.
const (
	ExitUnschedulable = 2
	ExitFailed        = 3
	ExitTimeout       = 4
)
