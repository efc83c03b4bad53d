// Package ui serves the page at /ui/: what runs, what is wrong and why, and what a person may do about it. When a push is
// processed, its result appears here without a reload.
//
// The page is HTML from the server (html/template) and one small script. Every view is a function of the cluster's state and
// of the URL. The server renders a view for a request, and renders it again over one event stream when objects have changed
// that the view shows. The script replaces only the parts of the document that differ. The alternative was a typed client
// that holds all objects in the browser. It would need a build step and a second copy of the rules that decide what is wrong,
// and with 10,000 projects it would have to load all of them before it could paint one. Here the browser gets only the rows
// that it shows, filters and search run where the objects are, and the script stays at a few KB that need no build.
//
// Invariants:
//
//   - The page reads and changes objects only through the services that serve gRPC and REST, as the person who is logged in.
//     It has no rights of its own. The recent changes of the cache only say when to render again: changes are hints.
//   - A stream carries whole views, never differences. So a stream that was broken needs no catching up: the first view that
//     it sends again is the current one, and a view that has not changed is not sent.
//   - All who look at one view with the same rights get the same renderings. All views together use a fortieth of the time, as long
//     as that leaves no page more than 8 s behind: the pause between two renderings is longer when more is open or a view takes longer.
//   - A session is a cookie that scripts cannot read. Its secret is stored as a hash, and it ends with its token.
//   - A shell is one request whose answer is the output. What is typed comes in requests of its own, which only the session
//     that opened the shell may send, and each is checked as every change is.
//   - Texts from outside are text: html/template escapes them, control characters and marks that change the direction of text
//     are removed from every answer, and the content security policy allows no inline script and no inline style.
package ui
