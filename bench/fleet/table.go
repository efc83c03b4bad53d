package main

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"
	"time"
)

// printRows prints the figures as a table or as JSON.
func printRows(out io.Writer, rows []row, asJSON bool) error {
	if asJSON {
		encoder := json.NewEncoder(out)
		encoder.SetIndent("", "  ")
		return encoder.Encode(rows)
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "scene\ttook\tserver CPU\tof a core\tRSS MiB\tpeak MiB\tcall p50\tp99\tassigned p50\tp99\twire KiB\tNotReady\tbroken\t  note")
	for _, r := range rows {
		fmt.Fprintf(w, "%s\t%s\t%s\t%.0f %%\t%d\t%d\t%s\t%s\t%s\t%s\t%d\t%d\t%d\t  %s\n", r.Scene, seconds(r.Took), seconds(r.CPU),
			100*r.CPU.Seconds()/max(r.Took.Seconds(), 0.001), r.ResidentMiB, r.PeakMiB, millis(r.CallP50), millis(r.CallP99),
			millis(r.AssignP50), millis(r.AssignP99), r.WireBytes>>10, r.NotReady, r.Broken, r.Note)
	}
	return w.Flush()
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.2f s", d.Seconds()) }

// millis returns milliseconds, or "-" if nothing was measured.
func millis(d time.Duration) string {
	if d == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000)
}
