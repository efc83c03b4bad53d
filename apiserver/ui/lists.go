package ui

import (
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// list is a window of the objects that match a filter.
type list[T any] struct {
	rows
	Items []T
}

// rows are which rows of a list the browser gets.
type rows struct {
	At         string // the address of the whole list
	Query      string
	All, Found int
	From, To   int
	Prev, Next string // addresses of the windows before and after
}

// listOf filters a list by the words of the query and cuts the window that the query asks for. The words are in lower case.
func listOf[T any](r request, path string, all []T, matches func(item T, words []string) bool) list[T] {
	l := list[T]{rows: rows{At: Prefix + path, Query: clipped(r.query.Get("q")), All: len(all)}, Items: all}
	if words := strings.Fields(strings.ToLower(l.Query)); len(words) > 0 {
		l.Items = slices.Clone(all) // the list is the cache's
		l.Items = slices.DeleteFunc(l.Items, func(item T) bool { return !matches(item, words) })
	}
	l.Found = len(l.Items)
	l.From, l.To = span(r.query.Get("from"), l.Found)
	l.Items = l.Items[l.From:l.To]
	if l.From > 0 {
		l.Prev = l.link(max(0, l.From-window))
	}
	if l.To < l.Found {
		l.Next = l.link(l.To)
	}
	return l
}

func (r rows) link(from int) string {
	v := url.Values{}
	if r.Query != "" {
		v.Set("q", r.Query)
	}
	if from > 0 {
		v.Set("from", strconv.Itoa(from))
	}
	if len(v) == 0 {
		return r.At
	}
	return r.At + "?" + v.Encode()
}

// span returns the rows of the window that begins at a row, of so many.
func span(at string, found int) (from, to int) {
	from, _ = strconv.Atoi(at) // 0 if it is not a number
	from = max(0, min(from/window*window, (found-1)/window*window))
	return from, min(from+window, found)
}

// all reports whether each word is in one of the texts.
func all(words []string, texts ...string) bool {
	return !slices.ContainsFunc(words, func(word string) bool {
		return !slices.ContainsFunc(texts, func(text string) bool { return has(text, word) })
	})
}
